from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("appliance", "0006_how_deployments_scale"),
    ]

    operations = []
